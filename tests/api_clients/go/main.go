// Sends records with go-elasticsearch: elasticsearch URL FIRST COUNT
//
// As send.py does it: the message of a record is message(i), the second half waits for a line from standard input, and the end for its
// end. Ends with 0 if the client is content.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/elastic/go-elasticsearch/v9"
	"github.com/elastic/go-elasticsearch/v9/esutil"
)

func message(i int) string {
	return fmt.Sprintf("record %d \"quoted\" \\ é 日本\twith a tab\nand a second line", i)
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func main() {
	url, first, count := os.Args[1], number(os.Args[2]), number(os.Args[3])
	client, err := elasticsearch.NewClient(elasticsearch.Config{
		Addresses:     []string{url},
		RetryOnStatus: []int{429, 502, 503, 504},
		MaxRetries:    600,
		RetryBackoff:  func(int) time.Duration { return 100 * time.Millisecond },
	})
	if err != nil {
		log.Fatal(err)
	}
	var failed atomic.Uint64
	indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
		Client: client, Index: "shop", NumWorkers: 1, FlushBytes: 5000, FlushInterval: 200 * time.Millisecond,
		OnError: func(_ context.Context, err error) {
			failed.Add(1)
			log.Print(err)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	stdin := bufio.NewReader(os.Stdin)
	for i := first; i < first+count; i++ {
		if i == first+count/2 {
			_, _ = stdin.ReadString('\n') // an end is as good as a line
		}
		document, err := json.Marshal(map[string]any{"message": message(i)})
		if err != nil {
			log.Fatal(err)
		}
		item := esutil.BulkIndexerItem{Action: "create", Body: bytes.NewReader(document)}
		if err := indexer.Add(context.Background(), item); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := io.Copy(io.Discard, stdin); err != nil {
		log.Fatal(err)
	}
	if err := indexer.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	stats := indexer.Stats()
	fmt.Printf("%+v\n", stats)
	if failed.Load() > 0 || stats.NumFailed > 0 || stats.NumFlushed != uint64(count) {
		os.Exit(1)
	}
}
