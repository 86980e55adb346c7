package main

import "github.com/spf13/cobra"

// commands lists every command, in the order of help.
func commands(g *globals) []*cobra.Command {
	return []*cobra.Command{
		newDemo(g),
		newChaos(g),
		newDev(g),
		newSetup(g),
		newMigrate(g),
		newRun(g),
		newConsole(g),
		newHealth(g),
		newAudit(g),
		newOffsets(g),
		newDLQ(g),
		newHeal(g),
		newLedger(g),
		newTxn(g),
		newPrune(g),
		newErase(g),
		newDoctor(g),
		newSchema(g),
		newConfig(g),
		newGenerate(g),
		newVersion(g),
		newMan(g),
	}
}
