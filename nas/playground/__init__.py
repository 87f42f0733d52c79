"""Write a page in which a person builds networks by hand, and sees their latency and accuracy at once."""
