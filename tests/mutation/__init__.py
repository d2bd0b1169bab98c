"""Break one promise at a time, and see which check notices."""
