// Package clicks owns the application: Click to EnrichedClick, the geo look-up, its Postgres rows, and the generator that makes or reads clicks.
//
// It promises that the same click enriches to the same row and the same event, whoever does it and however often, and that the
// generator says it is done only when every click it sent has been acknowledged. It never knows offsets or transactions.
package clicks
