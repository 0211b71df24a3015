// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// listedEntry is a file as the manifest lists it.
type listedEntry struct{ name, mediaType string }

// listed names the entries that the manifest must list: all that are neither
// "mimetype" nor in META-INF.
func (c *Container) listed() []listedEntry {
	list := []listedEntry{{"/", MediaType}}
	for _, p := range c.parts() {
		if *p.data != nil && !strings.HasPrefix(p.name, directoryMeta) {
			list = append(list, listedEntry{p.name, "text/xml"})
		}
	}
	for i, a := range c.Attachments {
		if a.Open != nil {
			list = append(list, listedEntry{entryAttachment + strconv.Itoa(i+1), "application/octet-stream"})
		}
	}
	return list
}

// manifestStyle is one spelling of the OpenDocument manifest.
type manifestStyle struct {
	head, before, between, after string
	root                         bool // lists the package itself
}

const manifestTail = "</manifest:manifest>\n"

// manifestStyles are the spellings of X-Road 7 and of X-Road 6.
var manifestStyles = [...]manifestStyle{
	{
		head: `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
			`<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" manifest:version="1.2">` + "\n",
		before:  `    <manifest:file-entry manifest:media-type="`,
		between: `" manifest:full-path="`,
		after:   "\"/>\n",
		root:    true,
	},
	{
		head: `<?xml version="1.0" encoding="utf-8"?>` + "\n" +
			`<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">` + "\n",
		before:  `<manifest:file-entry manifest:media-type="`,
		between: `" manifest:full-path="`,
		after:   "\" />\n",
	},
}

func (s *manifestStyle) entry(e listedEntry) string {
	return s.before + e.mediaType + s.between + e.name + s.after
}

// manifest writes META-INF/manifest.xml (OpenDocument 1.2, part 3).
func manifest(list []listedEntry) []byte {
	s := &manifestStyles[0]
	var b bytes.Buffer
	b.WriteString(s.head)
	for _, e := range list {
		b.WriteString(s.entry(e))
	}
	b.WriteString(manifestTail)
	return b.Bytes()
}

// checkManifest demands that a manifest lists exactly the given entries, in
// any order, in one of the known spellings.
func checkManifest(doc []byte, list []listedEntry) error {
	for i := range manifestStyles {
		s := &manifestStyles[i]
		rest, ok := strings.CutPrefix(string(doc), s.head)
		if !ok {
			continue
		}
		if rest, ok = strings.CutSuffix(rest, manifestTail); !ok {
			return errors.New("it does not end as it should")
		}
		missing := make(map[string]listedEntry)
		for _, e := range list {
			if e.name != "/" || s.root {
				missing[s.entry(e)] = e
			}
		}
		for line := range strings.Lines(rest) {
			if _, ok := missing[line]; !ok {
				return fmt.Errorf("it lists what is not there: %.120q", line)
			}
			delete(missing, line)
		}
		for _, e := range missing {
			return fmt.Errorf("it does not list %s", e.name)
		}
		return nil
	}
	return errors.New("it is not in X-Road's form")
}

// asicManifest writes META-INF/ASiCManifest.xml, which binds the time-stamp to
// the result of the time-stamp chain; nil without one. The namespace is
// X-Road's spelling of that of ETSI TS 102 918.
func asicManifest(tsChainResult []byte) []byte {
	if tsChainResult == nil {
		return nil
	}
	d := sha512.Sum512(tsChainResult)
	return []byte(`<?xml version="1.0" encoding="utf-8"?>
<asic:ASiCManifest xmlns:asic="http://uri.etsi.org/2918/v1.2.1#" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">
<asic:SigReference URI="META-INF/timestamp.tst" MimeType="vnd.etsi.timestamp-token"/>
<asic:DataObjectReference URI="ts-hashchainresult.xml" MimeType="text/xml">
<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512" />
<ds:DigestValue>` + base64.StdEncoding.EncodeToString(d[:]) + `</ds:DigestValue>
</asic:DataObjectReference>
</asic:ASiCManifest>`)
}
