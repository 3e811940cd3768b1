"""Many machines: entry points on Ray (``pip install "sapatchcore[scale]"``). The stages are those of one machine."""
