package workload

import (
	"fmt"
	"math/rand/v2"

	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
)

const (
	// opening is what each account begins with, in cents.
	opening = 1_000_000

	// What the transactions move, in cents, as in the original.
	depositCents = 130
	savingsCents = 2020
	checkCents   = 500
	paymentCents = 500

	// declined is how an answer says that an account has too little: Connect's code, and on Restate a word of the message.
	declined = "failed_precondition"
)

// SmallBank is the mix of the six transactions on customers drawn by choice. On Restate each is one call of a durable
// handler, which is not atomic, and takes back what it has done when an account declines.
func SmallBank(choice Choice) Workload {
	return smallBank(SmallBankName(choice), "", choice, atOnce)
}

// SmallBankOneByOne is the same work by calls of single accounts.
func SmallBankOneByOne(choice Choice) Workload {
	return smallBank(SmallBankName(choice)+OneByOne, Perdure, choice, oneByOne)
}

func smallBank(name, only string, choice Choice, ways transactions) Workload {
	return Workload{
		Name: name, System: only, Refusal: declined, Ledger: bankMoney, Change: field("change"),
		Calls: func(instance *system.Instance, random *rand.Rand) []load.Call {
			keys := Keys{Count: Customers, Choice: choice, Random: random}
			calls := make([]load.Call, drawn)
			for i := range calls {
				for _, r := range ways.draw(random, &keys) {
					calls[i] = append(calls[i], r.of(instance))
				}
			}
			return calls
		},
	}
}

var bankMoney = &Ledger{
	Name: "the money of the bank", Change: field("change"), Number: field("balance"),
	Fill: func(instance *system.Instance) []load.Call {
		return bankAccounts(instance, func(account string) request { return move(account, opening) })
	},
	Read: func(instance *system.Instance) []load.Call { return bankAccounts(instance, read) },
}

func bankAccounts(instance *system.Instance, phrase func(account string) request) []load.Call {
	var calls []load.Call
	for _, customer := range names("c", Customers) {
		for _, account := range []string{checking(customer), savings(customer)} {
			calls = append(calls, load.Call{phrase(account).of(instance)})
		}
	}
	return calls
}

// request is one call of the bank, or of an account if it has one.
type request struct{ account, handler, body string }

func phrase(handler, format string, args ...any) request {
	return request{"", handler, fmt.Sprintf(format, args...)}
}

func (r request) of(instance *system.Instance) []byte {
	service := "smallbank.v1.BankService"
	if r.account != "" {
		service = "smallbank.v1.AccountService"
	}
	return instance.Handler(service, r.account, r.handler, r.body)
}

func checking(customer string) string { return "checking/" + customer }
func savings(customer string) string  { return "savings/" + customer }

func read(account string) request {
	return request{account, "Read", fmt.Sprintf(`{"account":%q}`, account)}
}

func move(account string, cents int) request {
	return request{account, "Move", fmt.Sprintf(`{"account":%q,"amount":"%d"}`, account, cents)}
}

func empty(account string) request {
	return request{account, "Empty", fmt.Sprintf(`{"account":%q}`, account)}
}

func cash(account string, cents int) request {
	return request{account, "Cash", fmt.Sprintf(`{"account":%q,"amount":"%d"}`, account, cents)}
}

// transactions phrases the six transactions as requests.
type transactions struct {
	balance         func(customer string) []request
	depositChecking func(customer string, cents int) []request
	transactSavings func(customer string, cents int) []request
	amalgamate      func(from, to string) []request
	writeCheck      func(customer string, cents int) []request
	sendPayment     func(from, to string, cents int) []request
}

// draw draws a transaction with the shares of the original: 25 % payments, 15 % of each other.
func (t transactions) draw(random *rand.Rand, keys *Keys) []request {
	customers := keys.Distinct("c", 2)
	first, second := customers[0], customers[1]
	switch percent := random.IntN(100); {
	case percent < 15:
		return t.balance(first)
	case percent < 30:
		return t.depositChecking(first, depositCents)
	case percent < 45:
		return t.transactSavings(first, savingsCents*(1-2*random.IntN(2)))
	case percent < 60:
		return t.amalgamate(first, second)
	case percent < 75:
		return t.writeCheck(first, checkCents)
	default:
		return t.sendPayment(first, second, paymentCents)
	}
}

// atOnce makes each transaction one call of the bank.
var atOnce = transactions{
	balance: func(customer string) []request {
		return []request{phrase("Balance", `{"customer":%q}`, customer)}
	},
	depositChecking: func(customer string, cents int) []request {
		return []request{phrase("DepositChecking", `{"customer":%q,"amount":"%d"}`, customer, cents)}
	},
	transactSavings: func(customer string, cents int) []request {
		return []request{phrase("TransactSavings", `{"customer":%q,"amount":"%d"}`, customer, cents)}
	},
	amalgamate: func(from, to string) []request {
		return []request{phrase("Amalgamate", `{"from":%q,"to":%q}`, from, to)}
	},
	writeCheck: func(customer string, cents int) []request {
		return []request{phrase("WriteCheck", `{"customer":%q,"amount":"%d"}`, customer, cents)}
	},
	sendPayment: func(from, to string, cents int) []request {
		return []request{phrase("SendPayment", `{"from":%q,"to":%q,"amount":"%d"}`, from, to, cents)}
	},
}

// oneByOne makes each transaction the calls of accounts that it is made of. A caller of such calls would put what one
// answers into the next; here they are written beforehand, so Amalgamate deposits what accounts begin with and WriteCheck
// knows of no savings. The number and kind of calls is the same.
var oneByOne = transactions{
	balance: func(customer string) []request {
		return []request{read(savings(customer)), read(checking(customer))}
	},
	depositChecking: func(customer string, cents int) []request {
		return []request{move(checking(customer), cents)}
	},
	transactSavings: func(customer string, cents int) []request {
		return []request{move(savings(customer), cents)}
	},
	amalgamate: func(from, to string) []request {
		return []request{empty(savings(from)), empty(checking(from)), move(checking(to), opening)}
	},
	writeCheck: func(customer string, cents int) []request {
		return []request{read(savings(customer)), cash(checking(customer), cents)}
	},
	sendPayment: func(from, to string, cents int) []request {
		return []request{move(checking(from), -cents), move(checking(to), cents)}
	},
}
