"""The run: plan, driver, gangs of rank actors. The only place that imports ray."""
