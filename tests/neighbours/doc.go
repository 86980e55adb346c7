// Package neighbours holds the worker to what it says of the programs that others put beside it. Its tests need them installed: make neighbours.
//
// It owns nothing, promises that what doc/operations.md says of a neighbour was seen with it, and never replaces one by an imitation.
package neighbours
