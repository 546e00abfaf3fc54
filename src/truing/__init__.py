"""Truing brings a language model into true: feedback in, aligned models, measurements and a release decision out."""

__version__ = "0.2.0"
