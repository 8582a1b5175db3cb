"""Jobs on machines: a queue, who has its turn, where it goes, what it draws, and what stops it.

Time is whole microseconds. One heap of events, one pass over the queue behind each instant at which something happened
(docs/decisions/0049): nothing here is an op, and nothing of a job between its start and its end is looked at.
"""
