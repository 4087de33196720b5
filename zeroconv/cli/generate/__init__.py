"""What `zeroconv generate` does: its words, pictures to start from or to make again, hints."""
