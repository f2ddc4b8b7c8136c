package controller_test

import authorizationv1 "k8s.io/api/authorization/v1"

// approveReview asks whether the client may approve requests to all Issuers.
func approveReview() *authorizationv1.SelfSubjectAccessReview {
	return &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group:    "cert-manager.io",
			Resource: "signers",
			Verb:     "approve",
			Name:     "issuers.cert-manager.io/*",
			Version:  "*",
		},
	}}
}
