"""Launch scripts and configs of training and serving tools as plans and scenarios."""
