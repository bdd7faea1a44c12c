// The command `demo ID [run|hang|wait]` is an import of two stages; it completes, hangs in the second one, or waits too long.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

func main() {
	id, mode := os.Args[1], append(os.Args, "run")[2]
	err := Run("go-import", "import", id, 3, func(ctx context.Context, o *Operation) error {
		files := func(count int) func(func()) error {
			return func(advance func()) error {
				for file := range count {
					if mode == "hang" && file == 10 {
						<-ctx.Done()
					}
					select {
					case <-ctx.Done():
						return context.Cause(ctx)
					case <-time.After(100 * time.Millisecond):
						advance()
					}
				}
				return nil
			}
		}
		if err := o.Stage(ctx, "fetch", 4, files(4)); err != nil {
			return err
		}
		o.Wait("approval", 2*time.Second, func() { time.Sleep(map[string]time.Duration{"wait": 4 * time.Second}[mode]) })
		return o.Stage(ctx, "load", 20, files(20))
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
