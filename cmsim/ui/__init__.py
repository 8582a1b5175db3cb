"""A live page of what-if questions: a form, a chart and a table that follow it, and why one system is quicker.

form       what may be asked, and the scenario that it is
told       what is answered at once, from what was played near it, for all who ask
whatif     one person's question: told, then played, then written down
drawn      answers as parts of a page
page       the page on Panel, and its server
"""

__all__: list[str] = []
