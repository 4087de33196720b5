"""What tests of several folders share: tiny models, packed data, and faults to run under."""
