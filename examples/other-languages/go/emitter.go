// Reports progress by OpenTelemetry's own OTLP exporter, without an SDK of otel-progress. docs/protocol.md is what it follows.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
)

const heartbeat = 5 // seconds

var began = time.Now() // close enough to the creation of the process: a second is allowed

// Operation is the one operation of this program. Each event carries its whole state.
type Operation struct {
	id, name, instance, status string
	stallAfter                 float64
	started                    time.Time
	logger                     log.Logger
	cancel                     context.CancelCauseFunc
	mutex                      sync.Mutex // of all below, and of status
	sequence                   int
	stages                     []map[string]any
	wait                       []attribute.KeyValue
	changed                    atomic.Bool
}

func (o *Operation) emit(event string, attributes ...attribute.KeyValue) {
	var record log.Record
	record.SetEventName(event)
	record.SetTimestamp(time.Now())
	record.SetSeverity(log.SeverityInfo)
	record.AddAttributes(attributes...)
	o.logger.Emit(context.Background(), record)
}

// report changes the state and sends it; without an event a change waits for the next one, which comes within a second.
func (o *Operation) report(event string, change func(), more ...attribute.KeyValue) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	change()
	if o.changed.Store(event == ""); event == "" {
		return
	}
	o.sequence++
	about := []attribute.KeyValue{
		attribute.String("progress.operation.id", o.id), attribute.String("progress.operation.name", o.name),
		attribute.String("progress.status", o.status), attribute.Int("progress.sequence", o.sequence),
		attribute.Float64("progress.start_time", unix(o.started)), attribute.Float64("progress.elapsed", time.Since(o.started).Seconds()),
		attribute.Float64("progress.stall_after", o.stallAfter),
	}
	if n := len(o.stages); n > 0 {
		text, _ := json.Marshal(o.stages)
		about = append(about, attribute.String("progress.stages", string(text)))
		if current := o.stages[n-1]; current["status"] == "running" {
			about = append(about, attribute.String("progress.stage.current", current["path"].(string)))
		}
	}
	o.emit(event, append(append(about, o.wait...), more...)...)
}

// Stage runs work as a stage of total units, which work counts by the function that it gets.
func (o *Operation) Stage(ctx context.Context, path string, total int, work func(advance func()) error) error {
	done, start := 0, time.Now()
	stage := map[string]any{"path": path, "status": "running", "started_at": unix(start), "completed": 0, "total": total}
	o.report("progress.stage.started", func() { o.stages = append(o.stages, stage) })
	err := work(func() { o.report("", func() { done++; stage["completed"] = done }) })
	o.report("progress.stage.ended", func() { stage["status"], stage["elapsed"] = ending(ctx, err), time.Since(start).Seconds() })
	return err
}

// Wait declares a wait for something that is no work; it is overdue after the limit.
func (o *Operation) Wait(reason string, limit time.Duration, work func()) {
	about, since := attribute.String("progress.wait.reason", reason), time.Now()
	left := attribute.Float64("progress.wait.remaining", limit.Seconds())
	o.report("progress.wait.started", func() { o.status, o.wait = "waiting", []attribute.KeyValue{about, left} })
	work()
	took := attribute.Float64("progress.wait.duration", time.Since(since).Seconds())
	o.report("progress.wait.ended", func() { o.status, o.wait = "running", nil }, about, took)
}

// RoundTrip makes the operation the transport of the exporter: it sees whether the receiver of the events offers a control channel.
func (o *Operation) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err == nil && answer.Header.Get("Otel-Progress-Control") != "" {
		polling.Do(func() { go o.poll(request, answer.Header.Get("Otel-Progress-Control")) })
	}
	return answer, err
}

var polling sync.Once

func (o *Operation) poll(logs *http.Request, offer string) {
	channel, err := logs.URL.Parse(offer)
	if err != nil {
		return
	}
	origin, allowed := channel.Scheme+"://"+channel.Host, os.Getenv("OTEL_PROGRESS_CONTROL") // which `otel-progress run` sets
	if origin != logs.URL.Scheme+"://"+logs.URL.Host && origin != allowed {
		return // a receiver must not make us send requests elsewhere
	}
	for answers := []map[string]string{}; ; {
		body, _ := json.Marshal(map[string]any{"instance": o.instance, "pid": os.Getpid(), "wait": 20, "answers": answers})
		request, _ := http.NewRequest(http.MethodPost, channel.String(), bytes.NewReader(body))
		request.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": logs.Header.Values("Authorization")}
		answer, err := http.DefaultTransport.RoundTrip(request) // follows no redirect
		if err == nil && answer.StatusCode >= 400 && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests {
			return
		}
		if err != nil || answer.StatusCode != http.StatusOK {
			time.Sleep(2 * time.Second)
			continue
		}
		var found struct{ Commands []map[string]any }
		_ = json.NewDecoder(answer.Body).Decode(&found)
		answer.Body.Close()
		answers = answers[:0]
		for _, command := range found.Commands {
			if id, ok := command["id"].(string); ok {
				answers = append(answers, o.obey(id, command))
			}
		}
	}
}

func (o *Operation) obey(id string, command map[string]any) map[string]string {
	switch {
	case command["kind"] != "cancel":
		return map[string]string{"command": id, "state": "refused", "detail": "this version knows no such command"}
	case command["operation_id"] != o.id:
		return map[string]string{"command": id, "state": "unknown"}
	}
	o.cancel(fmt.Errorf("asked to stop: %v", command["reason"])) // a second time it changes nothing
	return map[string]string{"command": id, "state": "received"}
}

// Run reports work as an operation, whose status is how the work ended.
func Run(service, name, id string, stallAfter float64, work func(context.Context, *Operation) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	o := &Operation{id: id, name: name, stallAfter: stallAfter, status: "running", started: time.Now(), cancel: cancel}
	o.instance = fmt.Sprintf("%s-%d-%d", service, os.Getpid(), began.UnixNano())
	host, _ := os.Hostname()
	about := resource.NewSchemaless(
		attribute.String("service.name", service), attribute.String("service.instance.id", o.instance), attribute.String("host.name", host),
		attribute.Int("process.pid", os.Getpid()), attribute.String("process.creation.time", began.UTC().Format(time.RFC3339Nano)))
	exporter, err := otlploghttp.New(ctx, otlploghttp.WithHTTPClient(&http.Client{Transport: o, Timeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	batches := sdklog.NewBatchProcessor(exporter, sdklog.WithExportInterval(250*time.Millisecond))
	provider := sdklog.NewLoggerProvider(sdklog.WithResource(about), sdklog.WithProcessor(batches))
	o.logger = provider.Logger("go-emitter") // any scope but `otel_progress`, which judges itself
	o.report("progress.operation.started", func() {})
	go func() { // of its own, so that work that hangs does not stop it
		for tick := 0; ; tick++ {
			if tick%heartbeat == 0 {
				o.emit("progress.process.heartbeat", attribute.Float64("progress.heartbeat.interval", heartbeat))
			}
			time.Sleep(time.Second)
			if o.changed.Load() {
				o.report("progress.updated", func() {})
			}
		}
	}()
	err = work(ctx, o)
	var reason []attribute.KeyValue
	if err != nil {
		reason = append(reason, attribute.String("progress.status.reason", err.Error()))
	}
	o.report("progress.operation.ended", func() { o.status = ending(ctx, err) }, reason...)
	return errors.Join(err, provider.Shutdown(context.Background()))
}

func ending(ctx context.Context, err error) string {
	if err == nil {
		return "completed"
	}
	if ctx.Err() == nil {
		return "failed"
	}
	return "cancelled"
}

func unix(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
