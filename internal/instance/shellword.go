package instance

// ShellWord quotes a path or name, which somebody else may have chosen, so that a command with it can be pasted into a shell.
func ShellWord(s string) string { return shellWord(s) }
