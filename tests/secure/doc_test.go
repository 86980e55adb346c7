// Package secure holds the program to what it says of secured connections, on Apache Kafka, PostgreSQL and a registry that verify: TLS,
// mutual TLS, SCRAM, OAUTHBEARER, the least rights, refusals of every kind, secrets that change, and that none is ever printed.
package secure
