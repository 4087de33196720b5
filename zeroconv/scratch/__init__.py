"""The embedded models from nothing: what they learn from (`drawing`, `corpus`, `text`), one
training loop (`loop`), the models (`base`, `flow`, `vae`, `reader`), and their folders (`export`).
"""
