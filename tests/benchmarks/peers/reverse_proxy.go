// The peer: Go's httputil.ReverseProxy doing the same work as the proxied hosts: it checks the caller's
// token, strips the prefix and replaces the credential.
//
// Arguments: listen address, upstream base URL, prefix, caller's token, upstream's token.
package main

import (
	"crypto/subtle"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

func main() {
	listen, prefix, caller, credential := os.Args[1], os.Args[3], "Bearer "+os.Args[4], "Bearer "+os.Args[5]
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The default keeps two idle connections for each host, which would measure reconnecting.
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 1000, 1000
	transport.DisableCompression = true
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		// Director, not Rewrite: it exists before Go 1.20 as well.
		Director: func(request *http.Request) {
			request.URL.Scheme, request.URL.Host, request.Host = upstream.Scheme, upstream.Host, upstream.Host
			request.URL.Path = strings.TrimPrefix(request.URL.Path, prefix)
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
