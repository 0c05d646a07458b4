// The peer: Go's httputil.ReverseProxy doing the same work as the proxied hosts: it checks the caller's
// token, finds the connection, strips the prefix and replaces the credential.
//
// Arguments: listen address, file with the settings, caller's token, upstream's token.
package main

import (
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

type settings struct {
	Connections map[string]string
	Authority   string
}

func main() {
	listen, caller, credential := os.Args[1], "Bearer "+os.Args[3], "Bearer "+os.Args[4]
	upstreams, authority := load(os.Args[2])
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The default keeps two idle connections for each host and 100 in all, which would measure reconnecting.
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 2000, 1000
	transport.DisableCompression = true
	// HTTP/1.1 as every other target speaks it.
	transport.ForceAttemptHTTP2 = false
	transport.TLSClientConfig = &tls.Config{RootCAs: authority}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		// Director, not Rewrite: it exists before Go 1.20 as well.
		Director: func(request *http.Request) {
			selector, path, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/connections/"), "/proxy")
			upstream := upstreams[selector]
			request.URL.Scheme, request.URL.Host, request.Host = upstream.Scheme, upstream.Host, upstream.Host
			request.URL.Path = path
			request.Header.Set("Authorization", credential)
			request.Header["X-Forwarded-For"] = nil // not added, as the proxy under test adds none
		},
	}
	log.Fatal(http.ListenAndServe(listen, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		given := []byte(request.Header.Get("Authorization"))
		if subtle.ConstantTimeCompare(given, []byte(caller)) != 1 {
			http.Error(writer, "unknown caller", http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(writer, request)
	})))
}

func load(path string) (map[string]*url.URL, *x509.CertPool) {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var read settings
	if err := json.Unmarshal(text, &read); err != nil {
		log.Fatal(err)
	}
	upstreams := map[string]*url.URL{}
	for name, base := range read.Connections {
		if upstreams[name], err = url.Parse(base); err != nil {
			log.Fatal(err)
		}
	}
	pem, err := os.ReadFile(read.Authority)
	if err != nil {
		log.Fatal(err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(pem)
	return upstreams, authority
}
