package ingress_test

import (
	"strings"
	"testing"
)

func TestFlowHeaders(t *testing.T) {
	f := start(t, nil)
	body := `{"accountId":"alice","amount":"5"}`
	f.post(t, deposit, body, "Perdure-Limit-Key", "c-17", "Perdure-Tenant", "team b", "Perdure-Priority", "-100")
	if flow := last(t, f).GetFlow(); flow.GetLimitKey() != "c-17" || flow.GetTenant() != "team b" || flow.GetPriority() != -100 {
		t.Errorf("got %v", flow)
	}
	f.post(t, deposit, body)
	if flow := last(t, f).GetFlow(); flow != nil {
		t.Errorf("without headers: %v", flow)
	}
	for _, bad := range [][2]string{
		{"Perdure-Priority", "101"}, {"Perdure-Priority", "-101"}, {"Perdure-Priority", "high"}, {"Perdure-Priority", "1.5"}, {"Perdure-Priority", ""},
		{"Perdure-Priority", "99999999999999999999"}, {"Perdure-Limit-Key", strings.Repeat("x", 256)}, {"Perdure-Tenant", strings.Repeat("x", 256)},
		{"Perdure-Tenant", ""}, {"Perdure-Limit-Key", ""}, {"Perdure-Limit-Key", "\xff"},
	} {
		answer := f.post(t, deposit, body, bad[0], bad[1])
		if answer.code != "invalid_argument" || !strings.Contains(string(answer.body), bad[0]) {
			t.Errorf("%s: %.20q: %s %s", bad[0], bad[1], answer.code, answer.body)
		}
	}
	f.post(t, deposit, body, "Perdure-Limit-Key", strings.Repeat("x", 255))
	if flow := last(t, f).GetFlow(); len(flow.GetLimitKey()) != 255 {
		t.Errorf("a long limit key: %v", flow)
	}
}
