package main

import (
	"encoding/json"
	"net/http"
)

// admit is a mutating webhook that gives every object the label `admitted: "yes"`.
// The objects must have labels already.
func admit(w http.ResponseWriter, r *http.Request) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Request    struct {
			UID string `json:"uid"`
		} `json:"request"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": review.APIVersion,
		"kind":       review.Kind,
		"response": map[string]any{
			"uid":       review.Request.UID,
			"allowed":   true,
			"patchType": "JSONPatch",
			"patch":     []byte(`[{"op": "add", "path": "/metadata/labels/admitted", "value": "yes"}]`),
		},
	})
}
