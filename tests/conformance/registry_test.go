package conformance

func registryRules() []rule { return nil }
