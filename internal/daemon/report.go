package daemon

import (
	"context"

	"github.com/gportmap/gportmap/internal/admin"
)

// A Report is what a running gportmap tells of itself by its admin socket.
type Report struct {
	admin.Status
	// Table has every registration, the portmapper's own included.
	Table []admin.Registration `json:"table"`
}

// AskStatus asks the gportmap that is the instance of this configuration how it is. Errors are those of the socket: who may
// not open it gets one for which errors.Is(err, [fs.ErrPermission]) holds.
func AskStatus(ctx context.Context, c Config) (admin.Status, error) {
	var s admin.Status
	c, err := c.complete()
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	return s, admin.Ask(ctx, c.adminSocket(), "/v1/status", &s)
}

// askReport also asks for the table, and looks for the processes that the daemon may not see but we may.
func (c Config) askReport(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	var r Report
	if err := admin.Ask(ctx, c.adminSocket(), "/v1/status", &r.Status); err != nil {
		return nil, err
	}
	if err := admin.Ask(ctx, c.adminSocket(), "/v1/registrations", &r.Table); err != nil {
		return nil, err
	}
	FindServers(r.Table)
	return &r, nil
}
