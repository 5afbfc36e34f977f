package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/gportmap/gportmap/internal/daemon"
	"github.com/gportmap/gportmap/internal/daemon/logging"
)

// serve is the daemon, or starts it in the background, and returns the exit code.
func serve(name string, o options, stderr io.Writer) int {
	if o.fileError != nil {
		fail(stderr, name, o.fileError)
		return daemon.ExitCode(o.fileError)
	}
	background := daemon.EnterBackground()
	// Process 1 stays: with it everything ends in its pid namespace, a container most often.
	if !background && !o.foreground && !daemon.ActivationPending() && os.Getpid() != 1 {
		code, err := daemon.StartInBackground(daemonArgs())
		if err != nil {
			fail(stderr, name, err)
		}
		return code
	}
	// Files that we make have the modes that we say, whatever whoever started us works with.
	syscall.Umask(0o022)

	sink, level := logging.Stderr(os.Stderr, name), slog.LevelInfo
	if background {
		sink = logging.Syslog(name)
		o.Ready = daemon.Detach
		o.TakenOver = tellTakeover(name, stderr)
	}
	if o.debug {
		level = slog.LevelDebug
	}
	handler := logging.New(sink, level)
	defer handler.Close()
	o.Log = slog.New(handler)
	o.LogRate = handler.SetRate
	o.Version = versionName()
	abortOnPanic(o)

	ctx, hangups, release := handleSignals()
	defer release()
	o.Hangups = hangups
	err := daemon.Run(ctx, o.Config)
	if err != nil {
		o.Log.Error(err.Error())
		if background {
			fail(stderr, name, err)
		}
	}
	return daemon.ExitCode(err)
}

// abortOnPanic gives -a the meaning that is nearest to rpcbind's, which then calls abort(3) on errors: with -d a fault of
// the program shows the stack of every goroutine and ends with SIGABRT, which may leave a core file.
func abortOnPanic(o options) {
	switch {
	case o.abort && o.debug:
		debug.SetTraceback("crash")
	case o.abort:
		o.Log.Warn("-a (--abort) means something only together with -d (--debug): ignored")
	}
}

// handleSignals returns a context that ends with SIGTERM, SIGINT or SIGQUIT, the signals by which rpcbind ends cleanly, and
// what brings each SIGHUP. A second one of those that end ends the process at once. Like rpcbind we ignore the other signals
// that a daemon may be sent.
func handleSignals() (context.Context, <-chan os.Signal, context.CancelFunc) {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	context.AfterFunc(ctx, release)
	return ctx, hangups, release
}
