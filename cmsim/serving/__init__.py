"""A service under load: requests that come, wait, are batched step by step, and leave."""
