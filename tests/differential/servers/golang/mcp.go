// An MCP server that stands in for those of Go: encoding/json decodes its messages.
package main

import (
	"encoding/json"
	"io"
	"net/http"
)

// Message is a JSON-RPC request as Go's MCP libraries declare it.
type Message struct {
	ID     any    `json:"id"`
	Method string `json:"method"`
	Params struct {
		Name      string         `json:"name"`
		Arguments map[string]any `json:"arguments"`
		URI       string         `json:"uri"`
		Meta      map[string]any `json:"_meta"`
		Cursor    string         `json:"cursor"`
	} `json:"params"`
}

func handleMCP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	var message Message
	if err := json.Unmarshal(raw, &message); err != nil {
		emit(map[string]any{"mcp": nil, "raw": string(raw), "error": err.Error()})
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	emit(map[string]any{"mcp": message, "raw": string(raw), "error": nil})
	if message.ID == nil {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"jsonrpc": "2.0", "id": message.ID, "result": result(message),
	})
}

func result(message Message) any {
	tool := func(name string) map[string]any {
		return map[string]any{"name": name, "inputSchema": map[string]any{"type": "object"}}
	}
	switch message.Method {
	case "initialize":
		return map[string]any{
			"protocolVersion": "2025-11-25",
			"capabilities":    map[string]any{"tools": map[string]any{}},
			"serverInfo":      map[string]any{"name": "stand-in", "version": "1"},
		}
	case "tools/list":
		return map[string]any{"tools": []any{tool("read_file"), tool("delete_file")}}
	case "tools/call":
		content := map[string]any{"type": "text", "text": message.Params.Name}
		return map[string]any{"content": []any{content}}
	}
	return map[string]any{}
}
