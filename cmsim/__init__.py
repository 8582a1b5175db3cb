"""cmsim: performance, latency and energy of AI supernodes, from one scenario file."""
