// Go's net/http with its own forms, multipart and encoding/json.
//
// JSON is also decoded into a struct, as handlers do: encoding/json matches the names
// of its fields in any case. With -mcp it is an MCP server that decodes messages so.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Report is one request as this server read it.
type Report struct {
	Port    int                      `json:"port"`
	Method  string                   `json:"method"`
	Path    string                   `json:"path"`
	Query   map[string][]string      `json:"query"`
	Headers map[string]string        `json:"headers"`
	Length  int                      `json:"length"`
	Sha256  string                   `json:"sha256"`
	Kind    *string                  `json:"kind"`
	JSON    any                      `json:"json"`
	Form    map[string][]string      `json:"form"`
	Files   [][]any                  `json:"files"`
	Watched map[string][]interface{} `json:"watched"`
	Error   *string                  `json:"error"`
}

// Payment is what a handler of JSON expects.
type Payment struct {
	Amount any `json:"amount"`
	To     any `json:"to"`
	Count  any `json:"count"`
}

var printing sync.Mutex

func emit(value any) {
	line, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	printing.Lock()
	defer printing.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func read(r *http.Request) (Report, error) {
	_, port, _ := net.SplitHostPort(r.RemoteAddr)
	number, _ := strconv.Atoi(port)
	raw, err := io.ReadAll(r.Body)
	report := Report{
		Port: number, Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(),
		Headers: map[string]string{"host": r.Host}, Length: len(raw), Sha256: digest(raw),
		Files: [][]any{}, Watched: map[string][]any{"amount": {}, "to": {}, "count": {}},
	}
	for name, values := range r.Header {
		report.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	if r.ContentLength > 0 {
		report.Headers["content-length"] = strconv.FormatInt(r.ContentLength, 10)
	}
	if err != nil {
		return report, err
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	kind := ""
	switch {
	case len(raw) == 0:
		err = r.ParseForm()
	case media == "application/x-www-form-urlencoded":
		kind = "form"
		// ParseForm reads bodies of these three methods alone.
		method := r.Method
		r.Method = "POST"
		err = r.ParseForm()
		r.Method = method
		report.Form = r.PostForm
	case media == "multipart/form-data":
		kind = "multipart"
		err = r.ParseMultipartForm(1 << 22)
		if err == nil {
			report.Form = r.MultipartForm.Value
			report.Files, err = files(r)
		}
	case !strings.HasPrefix(media, "image/"):
		// A decoder of JSON looks at no Content-Type.
		kind = "json"
		err = fields(raw, &report)
		if err == nil {
			err = r.ParseForm()
		}
	default:
		err = r.ParseForm()
	}
	if kind != "" {
		report.Kind = &kind
	}
	for name, found := range report.Watched {
		if values, ok := r.Form[name]; ok && len(values) > 0 {
			report.Watched[name] = append(found, r.FormValue(name))
		}
	}
	return report, err
}

func files(r *http.Request) ([][]any, error) {
	found := [][]any{}
	for name, several := range r.MultipartForm.File {
		for _, one := range several {
			opened, err := one.Open()
			if err != nil {
				return nil, err
			}
			content, err := io.ReadAll(opened)
			if err != nil {
				return nil, err
			}
			kind := one.Header.Get("Content-Type")
			found = append(found, []any{name, one.Filename, kind, len(content), digest(content)})
		}
	}
	return found, nil
}

func fields(raw []byte, report *Report) error {
	if err := json.Unmarshal(raw, &report.JSON); err != nil {
		return err
	}
	if _, ok := report.JSON.(map[string]any); !ok {
		return nil
	}
	var payment Payment
	if err := json.Unmarshal(raw, &payment); err != nil {
		return err
	}
	for name, value := range map[string]any{
		"amount": payment.Amount, "to": payment.To, "count": payment.Count,
	} {
		if value != nil {
			report.Watched[name] = append(report.Watched[name], value)
		}
	}
	return nil
}

func handle(w http.ResponseWriter, r *http.Request) {
	report, err := read(r)
	if err != nil {
		text := err.Error()
		report.Error = &text
		w.WriteHeader(http.StatusBadRequest)
	}
	emit(report)
	fmt.Fprint(w, "read")
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	handler := handle
	if len(os.Args) > 1 && os.Args[1] == "-mcp" {
		handler = handleMCP
	}
	emit(map[string]int{"listening": listener.Addr().(*net.TCPAddr).Port})
	// A ServeMux cleans paths and redirects; a handler alone takes them as they are.
	panic(http.Serve(listener, http.HandlerFunc(handler)))
}
