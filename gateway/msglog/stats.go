// SPDX-License-Identifier: Apache-2.0

package msglog

import "time"

// Stats is the state of the log at one moment, for metrics and health.
type Stats struct {
	First, Last uint64 // numbers of the oldest and newest record; Last < First if there is none
	Records     uint64
	Appended    uint64 // since the log was opened
	InFlight    int64  // appends that wait for the disk

	Unstamped       uint64
	OldestUnstamped time.Time // zero if none waits
	LastStamp       time.Time // zero if none since the log was opened
	FailingSince    time.Time // zero if the last time-stamp succeeded
	RefuseAt        time.Time // when Append begins or began to refuse; zero if it will not
	StampError      error     // of the last attempt

	Bytes     int64 // on disk, without bodies
	BodyFiles int64
	BodyBytes int64
	Stalled   time.Duration // since the log was opened, for how long appends waited because the index lagged behind
	FreeBytes int64         // of the file system; -1 if unknown
	Reserve   int64         // free space that Append leaves; 0 if none

	Failed error // not nil: the log must be opened anew
}

// Stats returns the state. It touches no records and is cheap.
func (l *Log) Stats() Stats {
	s := Stats{
		First:     l.prune.upTo.Load() + 1,
		Last:      l.durable.Load(),
		Appended:  l.appended.Load(),
		InFlight:  l.inFlight.Load(),
		BodyFiles: l.bodies.count.Load(),
		BodyBytes: l.bodies.size.Load(),
		Stalled:   time.Duration(l.stalls.Load()),
		FreeBytes: -1,
		Reserve:   max(l.cfg.Reserve, 0),
		Failed:    l.failedErr(),
	}
	if since := l.stalled.Load(); since != 0 {
		s.Stalled += time.Duration(time.Now().UnixNano() - since)
	}
	s.Records = s.Last + 1 - s.First
	s.Unstamped = s.Last - min(l.stamps.upTo.Load(), s.Last)
	l.stamps.mu.Lock()
	s.OldestUnstamped, s.LastStamp, s.StampError = l.stamps.oldest, l.stamps.lastStamp, l.stamps.lastError
	l.stamps.mu.Unlock()
	if since := l.stamps.failing.Load(); since != 0 {
		s.FailingSince = time.Unix(0, since).UTC()
		if l.cfg.FailurePeriod > 0 {
			s.RefuseAt = s.FailingSince.Add(l.cfg.FailurePeriod)
		}
	}
	if l.enter() == nil {
		defer l.exit()
		s.Bytes = l.segs.bytes() + int64(l.db.Metrics().DiskSpaceUsage())
	}
	if usage, err := l.fs.GetDiskUsage(l.cfg.Dir); err == nil {
		s.FreeBytes = int64(min(usage.AvailBytes, 1<<62))
	}
	return s
}
