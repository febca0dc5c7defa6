"""Videos from a model for a list of prompts, named and seeded so that they can be compared.

from motive.generation import generate

generate("tiny-wan", "prompts.txt", "videos/", seeds=5)
"""

from motive.generation.batch import generate

__all__ = ["generate"]
