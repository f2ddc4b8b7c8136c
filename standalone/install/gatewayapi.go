package install

import (
	"embed"
	"fmt"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

//go:embed gatewayapi/*.yaml
var gatewayFiles embed.FS

// GatewayAPI returns the CustomResourceDefinitions of the Gateway API, as its project publishes
// them.
func GatewayAPI() ([]runtime.Object, error) {
	files, err := fs.Glob(gatewayFiles, "gatewayapi/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("read the definitions of the Gateway API: %w", err)
	}
	var objects []runtime.Object
	for _, file := range files {
		content, err := gatewayFiles.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the definitions of the Gateway API: %w", err)
		}
		u := new(unstructured.Unstructured)
		if err := yaml.Unmarshal(content, &u.Object); err != nil {
			return nil, fmt.Errorf("read the definitions of the Gateway API: %s: %w", file, err)
		}
		objects = append(objects, u)
	}
	return objects, nil
}
