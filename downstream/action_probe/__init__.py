"""Linear and nearest-neighbour probes of actions."""
