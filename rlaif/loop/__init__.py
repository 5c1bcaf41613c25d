"""The self-rewarding loop: rounds, what they must hold to, and what they cost.

`rounds.py` is the diagram. Each stage of a round runs in a process of its own (`stage.py`), and
each round is an ordinary run folder.
"""
