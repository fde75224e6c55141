// A workflow node: prints each new state of a connection as it arrives.
//
//	NATS_URL=nats://127.0.0.1:4222 NATS_USER=demo NATS_PASSWORD=… go run . A… slack workspace1
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// Pauses between questions without a newer answer double from the first to the longest.
	firstPause   = 500 * time.Millisecond
	longestPause = 30 * time.Second
	// Workers answer within this time, also if they have to wait for the provider.
	timeout = 25 * time.Second
	// Time until the next question when nothing is expected.
	idle = 24 * time.Hour
	// Pushes that wait while a state is handled.
	waiting = 64
)

// Connection has the fields that this node uses; docs/subjects.md has all of them.
type Connection struct {
	Sequence    uint64     `json:"sequence"`
	Status      string     `json:"status"`
	AccessToken string     `json:"access_token"`
	Expiry      *time.Time `json:"expiry"`
	ExpiresIn   int64      `json:"expires_in"`
}

// TokenSource keeps the newest state of one connection: subscribe, ask, keep the state with the higher sequence.
type TokenSource struct {
	nc             *nats.Conn
	subject, call  string
	question       []byte
	current        Connection
	changed        func(Connection)
	pause          time.Duration
	unknownSince   uint64
	next           *time.Timer
	latestQuestion int
}

// answer is what a question led to: a message, or an error if the bus or the workers are away.
type answer struct {
	question int
	message  *nats.Msg
	err      error
}

func newTokenSource(nc *nats.Conn, account, integration, name string, changed func(Connection)) (*TokenSource, error) {
	question, err := json.Marshal(map[string]string{"integration_id": integration, "connection_id": name})
	return &TokenSource{
		nc:       nc,
		subject:  fmt.Sprintf("ms.integration.oauth.%s.%s.%s", account, integration, name),
		call:     fmt.Sprintf("ms.oauth.%s.token", account),
		question: question,
		changed:  changed,
		pause:    firstPause,
		next:     time.NewTimer(idle),
	}, err
}

// run follows the connection until the subscription ends.
func (s *TokenSource) run(reconnected <-chan struct{}) error {
	pushes := make(chan *nats.Msg, waiting)
	if _, err := s.nc.ChanSubscribe(s.subject, pushes); err != nil {
		return err
	}
	// The server must have the subscription before the question. If the bus is away, the reconnect asks again.
	if err := s.nc.FlushTimeout(timeout); err != nil {
		log.Printf("not connected yet: %v", err)
	}
	answers := make(chan answer, waiting)
	s.ask(answers)
	for {
		select {
		case push, open := <-pushes:
			if !open {
				return nats.ErrConnectionClosed
			}
			s.receive(push)
		case answer := <-answers:
			// After a reconnect a newer question is on its way, and sets the timer.
			if wait := s.handle(answer); answer.question == s.latestQuestion {
				s.next.Reset(wait)
			}
		case <-reconnected: // A push that was sent while this was disconnected is missed.
			s.pause = firstPause
			s.ask(answers)
		case <-s.next.C:
			s.ask(answers)
		}
	}
}

func (s *TokenSource) ask(answers chan<- answer) {
	s.latestQuestion++
	question := s.latestQuestion
	go func() {
		message, err := s.nc.Request(s.call, s.question, timeout)
		answers <- answer{question, message, err}
	}()
}

func (s *TokenSource) receive(push *nats.Msg) {
	var connection Connection
	// The sequence is the record's: the server adds it as a header.
	sequence, err := strconv.ParseUint(push.Header.Get("Nats-Sequence"), 10, 64)
	if err == nil {
		err = json.Unmarshal(push.Data, &connection)
	}
	if err != nil {
		log.Printf("unreadable push: %v", err)
		return
	}
	connection.Sequence = sequence
	s.keep(connection)
}

// handle uses an answer, and returns the time until the next question.
func (s *TokenSource) handle(answer answer) time.Duration {
	if answer.err != nil {
		log.Printf("no answer: %v", answer.err)
		return s.afterPause()
	}
	header := answer.message.Header
	if code := header.Get("Nats-Service-Error-Code"); code != "" {
		log.Print(code, " ", header.Get("Nats-Service-Error"))
		if code == "404" {
			return s.unknown()
		}
		return s.afterPause()
	}
	var connection Connection
	if err := json.Unmarshal(answer.message.Data, &connection); err != nil {
		log.Printf("unreadable answer: %v", err)
		return s.afterPause()
	}
	s.unknownSince = 0
	s.keep(connection)
	return s.untilNearExpiry()
}

// unknown is an answer before the first login, or after a deletion that was missed. A push arrives before its
// connection can be found: so ask twice.
func (s *TokenSource) unknown() time.Duration {
	sequence := s.current.Sequence
	if sequence == 0 || s.current.Status == "revoked" {
		return idle // The next login is a push.
	}
	if s.unknownSince != sequence {
		s.unknownSince = sequence
		return s.afterPause()
	}
	s.current = Connection{Sequence: sequence, Status: "revoked"}
	s.changed(s.current)
	return idle
}

func (s *TokenSource) keep(connection Connection) {
	if connection.Sequence <= s.current.Sequence {
		return
	}
	s.current, s.pause, s.unknownSince = connection, firstPause, 0
	s.changed(connection)
	s.next.Reset(s.untilNearExpiry())
}

// untilNearExpiry ends when a worker refreshes the token before it answers.
func (s *TokenSource) untilNearExpiry() time.Duration {
	if s.current.Expiry == nil {
		return idle
	}
	early := min(30*time.Second, time.Duration(s.current.ExpiresIn)*time.Second/4)
	if left := time.Until(*s.current.Expiry) - early; left > 0 {
		return min(left, idle)
	}
	return s.afterPause()
}

// afterPause is random, so that many nodes do not ask at once.
func (s *TokenSource) afterPause() time.Duration {
	wait := s.pause + rand.N(s.pause/2)
	s.pause = min(2*s.pause, longestPause)
	return wait
}

func show(connection Connection) {
	// Here a node would call its provider with AccessToken. A token has no place in a log.
	length := len(connection.AccessToken)
	fmt.Printf("sequence %d: %s, a token of %d characters\n", connection.Sequence, connection.Status, length)
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: node <account> <integration> <connection>")
	}
	reconnected := make(chan struct{}, 1)
	again := func(*nats.Conn) {
		select {
		case reconnected <- struct{}{}:
		default: // The source has yet to take the last one.
		}
	}
	failed := func(_ *nats.Conn, err error) { log.Printf("no connection: %v", err) }
	nc, err := nats.Connect(os.Getenv("NATS_URL"),
		nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD")),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		// Without it the client stops trying when the bus refuses it twice, as it may while a password is replaced.
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(again), nats.ReconnectHandler(again), nats.ReconnectErrHandler(failed))
	if err != nil {
		log.Fatal(err)
	}
	source, err := newTokenSource(nc, os.Args[1], os.Args[2], os.Args[3], show)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(source.run(reconnected))
}
