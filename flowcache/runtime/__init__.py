"""Ray: cluster, gangs, actors, text encoding, metrics and jobs. No other room imports it."""
