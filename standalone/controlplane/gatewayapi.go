package controlplane

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

//go:embed gatewayapi/*.yaml
var gatewayAPI embed.FS

func installGatewayAPI(ctx context.Context, config *rest.Config) error {
	files, err := fs.Glob(gatewayAPI, "gatewayapi/*.yaml")
	if err != nil {
		return fmt.Errorf("install Gateway API: %w", err)
	}
	var objects []runtime.Object
	for _, file := range files {
		content, err := gatewayAPI.ReadFile(file)
		if err != nil {
			return fmt.Errorf("install Gateway API: %w", err)
		}
		u := new(unstructured.Unstructured)
		if err := yaml.Unmarshal(content, &u.Object); err != nil {
			return fmt.Errorf("install Gateway API: %s: %w", file, err)
		}
		objects = append(objects, u)
	}
	if err := Install(ctx, config, objects...); err != nil {
		return fmt.Errorf("install Gateway API: %w", err)
	}
	return nil
}
