"""What the documentation site shows that no page says by hand: options, the API, messages, the index of decisions."""
