package conformance

// differs are the known differences.
var differs = []difference{}
