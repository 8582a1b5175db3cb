"""One step of reinforcement learning: answers as a service makes them, passes and updates as training runs have them,
and weights on the fabric from those who train to those who make answers."""
