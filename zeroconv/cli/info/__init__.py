"""What `zeroconv info` says about models and pictures."""
