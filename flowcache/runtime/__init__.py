"""Ray: cluster, gangs, actors, metrics, jobs. Nothing else imports it but those who call this."""
