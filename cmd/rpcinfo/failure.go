package main

import "errors"

// failure is an error in rpcinfo's words, and what else is known about it.
type failure struct {
	text string
	hint string // for people: on a terminal, and in JSON
}

func (f failure) Error() string { return f.text }

// notCreated is the error of a client that can't be made.
func notCreated(what string, e *rpcError) error { return failure{what + ": " + e.created(), e.detail} }

// notCalled is the error of a call that failed.
func notCalled(what string, e *rpcError) error { return failure{what + ": " + e.called(), e.detail} }

// hintOf returns what an error doesn't say by itself.
func hintOf(err error) string {
	var f failure
	_ = errors.As(err, &f)
	return f.hint
}

// explain returns the whole text of an error.
func explain(err error) string {
	if hint := hintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}
