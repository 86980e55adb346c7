package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Payment is a record of the input: JSON, keyed by its account.
type Payment struct {
	ID       string    `json:"id"`
	Account  string    `json:"account"`
	Cents    int64     `json:"cents"`
	Currency string    `json:"currency"`
	At       time.Time `json:"at"`
}

// Booked is the event that a payment leads to.
type Booked struct {
	Payment
	EuroCents int64 `json:"euro_cents"`
}

// Rates are what currencies are worth, in millionths of a euro.
type Rates map[string]int64

// Handler books payments in euros. It implements engine.Handler.
type Handler struct {
	output string
	rates  Rates
}

// NewHandler books at these rates, and writes events to topic output.
func NewHandler(output string, rates Rates) *Handler { return &Handler{output, rates} }

// Tables implements engine.Handler.
func (h *Handler) Tables() []engine.Table {
	return []engine.Table{{Name: "payments", Columns: []string{"payment_id", "account", "cents", "currency", "euro_cents", "paid_at"}}}
}

// Handle implements engine.Handler.
func (h *Handler) Handle(_ context.Context, r *engine.Record, out *engine.Out) error {
	var b Booked
	if err := json.Unmarshal(r.Value, &b.Payment); err != nil {
		return &engine.Permanent{Class: "decode", Stage: "decode", Message: "not a payment in JSON"}
	}
	if b.ID == "" || b.Account == "" || b.Cents < 1 || b.Cents > maxCents {
		return &engine.Permanent{Class: "invalid", Stage: "validate", Message: fmt.Sprintf("id and account: must not be empty; cents: must be 1 to %d", int64(maxCents))}
	}
	rate, ok := h.rates[b.Currency]
	if !ok {
		return &engine.Permanent{Class: "invalid", Stage: "validate", Message: "currency: has no rate"}
	}
	b.EuroCents = b.Cents * rate / 1_000_000
	value, err := json.Marshal(&b)
	if err != nil { // a year that JSON can't hold
		return &engine.Permanent{Class: "invalid", Stage: "encode", Message: "at: can't be written"}
	}
	out.Row(0, b.ID, b.Account, b.Cents, b.Currency, b.EuroCents, b.At)
	return out.Event(h.output, r.Key, value, []outbox.Header{{Key: "exactly-source", Value: out.Source()}})
}

// maxCents keeps the product with a rate within an int64.
const maxCents = 1_000_000_000_00
