"""May it ship? Rules written down beforehand, held against findings."""
