"""Speed and memory, as ratios in one run against peers and floors."""
