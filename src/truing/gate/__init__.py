"""Release gates: rules written down beforehand, compared with findings."""
