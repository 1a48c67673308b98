"""What is recorded about a person, in words that the person understands: HTML, PDF and JSON."""
