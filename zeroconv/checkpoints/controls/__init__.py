"""Layouts of networks that act on a base: ControlNets of every kind, adapters, LLLite."""
